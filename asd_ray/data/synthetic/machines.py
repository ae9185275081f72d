"""The machine types of the synthetic set."""

from __future__ import annotations

from asd_ray.data.synthetic.mechanics import Machine
from asd_ray.data.synthetic.rotating import Fan, Gearbox, Pump, ToyCar
from asd_ray.data.synthetic.strokes import Slider, Valve

MACHINES: dict[str, type[Machine]] = {
    "fan": Fan,
    "pump": Pump,
    "slider": Slider,
    "valve": Valve,
    "gearbox": Gearbox,
    "ToyCar": ToyCar,
}
"""Machine type -> its model, in the generator's order."""
