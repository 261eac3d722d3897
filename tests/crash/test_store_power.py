"""The power cut itself: a file system in an image, copied at promises while work goes on.

What the file system had not written by then is missing from the copy, as after a cut; a SIGKILL would leave
it in the page cache. Needs the right to mount; `test_store_order` asserts the order of syncs everywhere.
"""

import random

from pacs_core.store import Reason, State, Store, Tombstone
from tests.crash.images import copied, disk, mounted

META = bytes(128) + b"DICM" + bytes(60)
CUTS = 60


def test_nothing_promised_is_lost_or_revived(tmp_path):
    dice = random.Random(1)
    kept, buried = {}, set()
    with disk(tmp_path) as (image, folder), Store.open(folder, small=4096, segment_size=64 << 10) as store:
        for cut in range(CUTS):
            sizes = [
                dice.choice((9000, 60000) if cut % 2 else (300, 2000, 3500))
                for _ in range(dice.randint(1, 4))
            ]
            datasets = [dice.randbytes(size) for size in sizes]
            unpublished = store.stage(META, dice.randbytes(9000), b"", 1)
            published = store.publish([store.stage(META, data, b"\x01", 1) for data in datasets])
            kept |= {place: META + data for place, data in zip(published.outcomes, datasets, strict=True)}
            if cut % 3 == 2:
                gone = dice.choice(list(kept))
                store.tombstone([Tombstone(gone, None, Reason.DELETED, "1.2", cut)])
                store.remove([gone])
                buried.add(gone)
                del kept[gone]
            copy = copied(image, tmp_path / "copy")
            with mounted(copy, tmp_path / "after"), Store.open(tmp_path / "after") as after:
                found = {each.locator: each.state for each in after.walk(check=True)}
                assert found.keys() >= kept.keys()
                assert not found.keys() & buried
                assert all(found[locator] is not State.DAMAGED for locator in kept)
                assert {locator: bytes(after.read(locator)) for locator in kept} == kept
                for number in after.dead_writers():
                    with after.recovering(number):
                        pass
            store.discard(unpublished)
