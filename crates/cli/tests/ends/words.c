/* Has a text translated with next to no memory left, a little more each time. glibc's dcigettext does not look whether
 * what it converts by could be allocated, and frees what lies on the stack instead. */
#include <libintl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HOLE = 2048, STEP = 16, OTHER = 64 };

static const char TEXT[] = "memory exhausted";

/* Of one text, in UTF-8. */
static void write_catalogue(void) {
    const char *texts[] = {"", TEXT, "Content-Type: text/plain; charset=UTF-8\n", "Speicher ersch\303\266pft"};
    unsigned words[7 + 8] = {0x950412de, 0, 2, 28, 44, 0, 0}, at = sizeof words;
    for (int text = 0; text < 4; text++) {
        words[7 + 2 * text] = strlen(texts[text]);
        words[8 + 2 * text] = at;
        at += strlen(texts[text]) + 1;
    }
    mkdir("xx", 0700), mkdir("xx/LC_MESSAGES", 0700);
    FILE *file = fopen("xx/LC_MESSAGES/words.mo", "w");
    if (!file) exit(OTHER);
    fwrite(words, sizeof words, 1, file);
    for (int text = 0; text < 4; text++) fwrite(texts[text], strlen(texts[text]) + 1, 1, file);
    if (fclose(file)) exit(OTHER);
}

static int is_translated(void) { return *dgettext("words", TEXT) == 'S'; }

__attribute__((noinline)) static void litter_stack(void) {
    void *volatile stack[2048];
    for (int i = 0; i < 2048; i++) stack[i] = (void *)&stack[i];
}

struct block { struct block *next; };

int main(int count, char **arguments) {
    if (count != 2 || chdir(arguments[1])) return OTHER;
    write_catalogue();
    setenv("LANGUAGE", "xx", 1);
    if (!setlocale(LC_ALL, "C.UTF-8")) return OTHER;
    bindtextdomain("words", arguments[1]);
    if (!is_translated()) return OTHER;
    /* All that this loads is there when it is converted anew. */
    bind_textdomain_codeset("words", "US-ASCII");
    if (!is_translated()) return OTHER;
    bind_textdomain_codeset("words", "ASCII");

    void *hole = malloc(HOLE);
    struct block *full = NULL, *block;
    for (size_t size = 1 << 20; size >= 16; size -= size > 1024 ? size / 2 : 16)
        while ((block = malloc(size))) memset(block, 1, size), block->next = full, full = block;
    free(hole);
    int crashed = 0;
    for (int room = STEP; room < HOLE; room += STEP) {
        pid_t child = fork();
        if (child == 0) {
            void *rest = malloc(HOLE - room);
            litter_stack();
            _exit(rest && !is_translated());
        }
        int status;
        if (waitpid(child, &status, 0) != child) return OTHER;
        crashed += WIFSIGNALED(status);
    }
    for (; full; full = block) block = full->next, free(full);
    printf("%d crashed\n", crashed);
    return 0;
}
