"""Airflow 3: a task that runs out of memory is tried again with twice as much; any other failure is final at once.

Put this file into the DAG folder; `oomguard` has to be in the worker's PATH. Its limit is the task's alone, so a task
that needs too much no longer takes the Airflow worker and its other tasks with it.

Checked: `airflow dags test summarise_requests`, Airflow 3.3, with a launcher that ran out of memory once; not in our CI.
"""

import subprocess
from datetime import timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

OUT_OF_MEMORY = 198
FIRST_MIB = 256


@task(retries=3, retry_delay=timedelta(seconds=10))
def summarise(path, ti=None):
    limit_mib = FIRST_MIB * 2 ** (ti.try_number - 1)
    launcher = ["oomguard", "run", "--limit", f"{limit_mib}Mi", "--"]
    worker = subprocess.run([*launcher, "python3", "/app/worker.py", path], stdout=subprocess.PIPE, text=True)
    if worker.returncode == OUT_OF_MEMORY:
        raise AirflowException(f"{path}: {limit_mib} MiB were not enough")
    if worker.returncode != 0:
        raise AirflowFailException(f"{path}: return code {worker.returncode}, which more memory does not cure")
    return worker.stdout


@dag(schedule=None)
def summarise_requests():
    summarise("/data/requests.csv")


summarise_requests()
