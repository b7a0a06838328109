"""python search.py --num-samples 5000: scores untrained ViTs against a trained teacher and keeps the best."""

from tvt_ray.cli.interrupts import end_at_once, leave

if __name__ == "__main__":
    end_at_once()
    from tvt_ray.cli.main import run, script_parser
    from tvt_ray.cli.search import add

    leave(run(script_parser("search.py", add)))
