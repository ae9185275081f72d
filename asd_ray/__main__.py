"""Run the command line with ``python -m asd_ray``."""

from asd_ray.cli.app import main

main()
