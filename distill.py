"""python distill.py --run-dir DIR --top-k 2: trains the best architectures of a search with its teacher."""

from tvt_ray.cli.interrupts import end_at_once, leave

if __name__ == "__main__":
    end_at_once()
    from tvt_ray.cli.distill import add
    from tvt_ray.cli.main import run, script_parser

    leave(run(script_parser("distill.py", add)))
