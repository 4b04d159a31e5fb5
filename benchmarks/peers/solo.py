"""Ours with Ray taken out: the job's own catalog, training loop, evaluation and export, in this one process.

python -m benchmarks.peers.solo --run NAME --set KEY=VALUE ...
"""

from __future__ import annotations

import argparse

from job import catalog, run, settings
from job.scan import to_lines


def main() -> None:
    """Leaves the same files as `python -m job train`, but for the report and the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings.add_arguments(parser)
    parser.add_argument("--run", required=True)
    args = parser.parse_args()
    wanted = settings.load(args.config, args.set)
    folder = run.open_run(wanted.runs, args.run)
    run.claim(folder, wanted)
    folder.write(run.MANIFEST, to_lines(catalog.build(wanted.data, wanted.training.seed).scans))
    from job.finish import evaluate_run, export_run
    from job.trainer import limit_threads
    from job.worker import Solo, work

    limit_threads(wanted.cluster.cpus_per_worker)
    work(wanted, folder.url, Solo(), print)
    evaluation, model = evaluate_run(wanted, folder)
    export_run(wanted, folder, args.run, model, evaluation)


if __name__ == "__main__":
    main()
