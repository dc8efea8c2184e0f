// Nextflow: a task that runs out of memory is tried again with twice as much; any other failure ends the run at once.
//
//     nextflow run main.nf --inputs 'data/*.csv'
//
// `task.memory` is what Nextflow asks the executor for; the launcher's limit lies 10 % below it, so that the task ends
// with 198 before the executor kills it. On the local executor, which limits nothing, the launcher's is the only limit.
//
// Checked: directives and closures against Nextflow's documentation of process directives; never run by our tests.

params.inputs = 'data/*.csv'

process SUMMARISE {
    memory { 256.MB * 2 ** (task.attempt - 1) }
    errorStrategy { task.exitStatus == 198 ? 'retry' : 'terminate' }
    maxRetries 3

    input:
    path requests

    output:
    path "${requests.baseName}.txt"

    script:
    """
    oomguard run --limit ${task.memory.toBytes().intdiv(10) * 9} -- \
        worker.py ${requests} > ${requests.baseName}.txt
    """
}

workflow {
    SUMMARISE(Channel.fromPath(params.inputs))
}
