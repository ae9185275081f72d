from __future__ import annotations

import asyncio
from pathlib import Path

from asd_ray.study.claims import Claims


def test_one_makes_and_the_others_wait_until_it_is_there(tmp_path: Path) -> None:
    async def story() -> list[str]:
        claims, told = Claims(), []
        path = tmp_path / "made"

        async def ask(trial: str) -> None:
            await claims.claim(str(path), trial)
            told.append(trial)

        await ask("a")
        waiting = [asyncio.create_task(ask(trial)) for trial in ("b", "c")]
        await asyncio.sleep(0)
        await ask("a")  # another worker of the same trial does not wait
        assert told == ["a", "a"]
        await claims.claim(str(tmp_path / "other"), "b")  # another thing
        path.touch()
        await asyncio.gather(*waiting)
        return told

    assert sorted(asyncio.run(story())) == ["a", "a", "b", "c"]


def test_the_turn_of_a_trial_that_ended_goes_to_one_other(tmp_path: Path) -> None:
    async def story() -> None:
        claims, told = Claims(), []
        path = tmp_path / "never made"

        async def ask(trial: str) -> None:
            await claims.claim(str(path), trial)
            told.append(trial)

        await ask("a")
        waiting = [asyncio.create_task(ask(trial)) for trial in ("b", "c")]
        await claims.ended("a")
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == len(pending) == 1
        assert len(told) == 2
        await claims.ended(told[-1])
        await asyncio.gather(*pending)

    asyncio.run(story())
