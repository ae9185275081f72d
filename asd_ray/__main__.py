from asd_ray.cli.app import main

main()
