"""What every Python process of a Ray that we start imports first, its own helpers included: it imports more than it
ever does."""

from asd_ray.allocator import collect_rarely

collect_rarely()
