"""python -m tvt_ray: the `tvt` command."""

import sys

from tvt_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
