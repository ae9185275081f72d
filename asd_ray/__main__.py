from asd_ray.cli import main

main()
