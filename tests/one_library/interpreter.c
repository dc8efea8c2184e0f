/* A program with the names of CPython's that the library asks for. Whether it is asked, at its first refusal, to call back. */
#include <stdlib.h>

static int asked;

int Py_IsInitialized(void);
int Py_IsInitialized(void) { return 1; }

int Py_AddPendingCall(int (*call)(void *), void *argument);
int Py_AddPendingCall(int (*call)(void *), void *argument) {
  (void)argument;
  asked = call != NULL;
  return 0;
}

/* No thread is in Python's code, and so nothing else is asked. */
#define NAME(name) void *name(void); void *name(void) { return NULL; }
NAME(PyThreadState_GetUnchecked) NAME(PyGILState_GetThisThreadState) NAME(PyErr_Fetch) NAME(PyErr_Restore)
NAME(PyErr_GetExcInfo) NAME(PyErr_GivenExceptionMatches) NAME(PyException_GetCause) NAME(PyException_GetContext)
NAME(PySys_GetObject) NAME(PyObject_GetAttrString) NAME(PyObject_SetAttrString) NAME(PyObject_Str) NAME(PyUnicode_AsUTF8)
NAME(PySequence_Size) NAME(PySequence_GetItem) NAME(PyCFunction_NewEx) NAME(PyImport_ImportModule)
NAME(PyImport_GetModuleDict) NAME(PyDict_GetItemString) NAME(PyType_IsSubtype) NAME(PyDict_New) NAME(PyDict_SetItemString)
NAME(PyEval_GetBuiltins) NAME(PyRun_String) NAME(PyErr_Display) NAME(Py_IncRef) NAME(Py_DecRef) NAME(PyExc_BaseException)
NAME(PyExc_MemoryError) NAME(PyExc_SystemExit) NAME(PyExc_SystemError) NAME(_Py_NoneStruct) NAME(PyType_Type)
NAME(PyObject_CallFunctionObjArgs)

int main(void) {
  void *volatile block = malloc((size_t)1 << 40);
  return block == NULL && asked ? 0 : 1;
}
