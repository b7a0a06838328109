"""python -m tvt_ray, and the command `tvt`."""

from tvt_ray.cli.interrupts import end_at_once, leave


def main() -> None:
    """Ends the process with the command's exit code."""
    end_at_once()
    from tvt_ray.cli import main as commands

    leave(commands.main())


if __name__ == "__main__":
    main()
