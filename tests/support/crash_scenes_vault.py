"""Scenes of what needs a secret: a prune with its deletions, a change of keys that the device follows, a rebuild."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chatkeep.config.amounts import Amount, Duration
from chatkeep.config.model import Retention
from chatkeep.daemon.backup.lineage import inspect
from chatkeep.daemon.backup.rebuild import rebuild
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.prune.commit import carry_out
from chatkeep.daemon.prune.outbox_first import OutboxFirst
from chatkeep.daemon.prune.own import OwnVault
from chatkeep.daemon.prune.plan import Terms, make_plan
from chatkeep.daemon.service.engine.sweeping import condemned_by
from chatkeep.daemon.sync import sweep
from chatkeep.daemon.sync.upload import Pace, release, upload
from chatkeep.daemon.vault.agree import unlock_newest
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.follow import follow
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.rotate import plan_rotation, rotate
from chatkeep.daemon.vault.snapshots import Stream
from chatkeep.daemon.vault.unlock import unlock, unlock_to_prune
from chatkeep.daemon.verify.capsules import prove_all
from chatkeep.providers.wrap import Patience
from tests.support.crash_scenes import STORAGE, Contents, First, Folding, Note, Recovery, Scene
from tests.support.invariants import check_state
from tests.support.sources import HOUR
from tests.support.thinning import silent

_NONE: Final = Amount(0)
_NEWEST: Final = Retention(Duration(0), _NONE, _NONE, _NONE, _NONE, _NONE, Amount(1), Duration(0))


def _nobody(_: str) -> None:
    """Nobody is told."""


class Pruning(Scene):
    """All but the newest snapshot go, and are deleted at once."""

    name = "prune"

    def prepare(self) -> None:
        super().prepare()
        for number in range(2):
            self.back_up()
            self.clock.now += 30 * HOUR
            (self.source / "other").write_text(f"day {number}")
            self.expected[len(self.expected) + 1] = self.contents(self.source)

    def work(self, note: Note) -> None:
        with self.open_state() as state:
            assert state.outbox.recover() == [], "a committed object was lost"
            folders, device = self.storage(), self.credential.device_id
            with unlock_to_prune(folders[0], RecoveryMethod(self.recovery)) as pruner:
                prove_all(state.capsules, pruner.vault.vault_id, pruner.vault.opener)
                own = OwnVault([OutboxFirst(one, state) for one in folders], pruner.vault, device)
                plan = make_plan(own, state, Terms(_NEWEST, STORAGE, self.clock()), silent)
                carry_out(plan, state, device, pruner.record, pruner.checkpoint)
            note("condemned")
            for folder in folders:
                if (sent := upload(state.outbox, folder, pace=Pace(1, Patience(attempts=1)))).problems:
                    raise sent.problems[0]
            release(state.outbox, STORAGE)
            condemned = condemned_by(self.credential)
            terms = sweep.Terms(0, condemned, STORAGE, asked=True, now_ns=self.clock)
            for folder in folders:
                swept = sweep.sweep(state.pruning, folder, terms)
                if swept.problem is not None:
                    raise swept.problem

    def check_seqs(self, seqs: Sequence[int], promised: int) -> None:
        assert seqs, "nothing is left"
        assert max(seqs) >= promised
        assert list(seqs) == list(range(min(seqs), max(seqs) + 1)), "a snapshot in the middle is gone"

    def check(self, told: Sequence[str] = ()) -> None:
        super().check(told)
        self.work(_nobody)
        for folder in self.storage():
            seqs = self.check_storage(folder)
            assert len(seqs) == 1, f"what was begun is never finished: {seqs}"
            with self.open_state() as state:
                assert state.pruning.to_sweep(folder.name) == [], "what is condemned stays"


class Rotating(Scene):
    """The keys change, the device goes on with the new ones, and backs up."""

    name = "rotate"

    def work(self, note: Note) -> None:
        self.rotate()
        note("rotated")
        self.follow()
        note("followed")
        self.back_up(note)

    def rotate(self) -> None:
        folders = self.storage()
        with unlock_newest(folders, folders[0], RecoveryMethod(self.recovery), None).enrolment as enrolment:
            rotate(folders, enrolment, plan_rotation(folders, enrolment.vault))

    def follow(self) -> None:
        """Saved before anything is sealed with it."""
        followed = follow(self.storage(), self.credential)
        if followed.moved:
            followed.credential.save(self.root / "state" / "chatkeep-writer", replace=True)
            self.credential = followed.credential

    def reset_source(self) -> None:
        super().reset_source()
        self.credential = self.first

    def prepare(self) -> None:
        super().prepare()
        self.first = self.credential

    def check_credential(self, told: bool) -> None:
        """One of the two, whole."""
        self.credential = WriterCredential.load(self.root / "state" / "chatkeep-writer")
        assert self.credential.epoch in (1, 2)
        assert self.credential.device_id == self.first.device_id

    def check(self, told: Sequence[str] = ()) -> None:
        self.check_credential(told=True)
        assert self.credential.epoch == 2 or "followed" not in told, "the new keys are gone"
        folders = self.storage()
        with unlock_newest(folders, folders[0], RecoveryMethod(self.recovery), None).enrolment as enrolment:
            assert enrolment.vault.head.epoch == 2 or "rotated" not in told, "the new epoch is gone"
            newest = enrolment.vault.head.epoch
        super().check(told)
        self.follow()
        assert self.credential.epoch == newest, "the device does not go on"
        self.back_up()
        for folder in self.storage():
            self.check_storage(folder)


class Rebuilding(Scene):
    """The records were lost: what is in the vault is read back, and another chain begun."""

    name = "rebuild"

    def prepare(self) -> None:
        super().prepare()
        for path in (self.root / "state").glob("state.db*"):
            path.unlink()
        for path in (self.root / "state" / "tables").iterdir():
            path.unlink()
        self.kept, self.now = self.expected[1], self.expected[2]
        ((self.old,),) = [[stream.stream_id for stream in self._reader().streams()]]

    def work(self, note: Note) -> None:
        with self.open_state() as state:
            folders = self.storage()
            found = [inspect(one, self.credential, state) for one in folders]
            strangers = set().union(*(one.strangers for one in found))
            if strangers:
                rebuild(state, self._reader(), folders, self.credential.device_id)
                state.lineage.note_seen(strangers, 0)
                state.lineage.found_again()
        note("rebuilt")
        self.back_up(note)

    def check(self, told: Sequence[str] = ()) -> None:
        self.check_credential(told=True)
        for folder in self.storage():
            assert 1 in self.check_storage(folder)
        self.change_after()
        self.work(_nobody)
        with self.open_state() as state:
            check_state(state, Writer(self.credential, state).ids)
            assert state.outbox.waiting() == (0, 0)
            own = state.stream("chat").stream
        assert own != self.old, "the chain that is not known was continued"
        for folder in self.storage():
            reader, found = self.snapshots(folder)
            newest = next(snapshot for snapshot in found if snapshot.header.stream_id == own)
            self._restore(reader, newest)
            assert self.contents(self.target) == self.contents(self.source)

    def streams(self, reader: VaultReader) -> list[Stream]:
        return reader.streams()

    def _reader(self) -> VaultReader:
        folders = self.storage()
        return VaultReader(folders, unlock(folders[0], RecoveryMethod(self.recovery)))

    def expects(self, snapshot: Snapshot) -> list[Contents]:
        first = snapshot.header.stream_id == self.old
        return [self.kept] if first else [self.now, self.contents(self.source)]


SCENES: Final = {scene.name: scene for scene in (Scene, First, Folding, Recovery, Pruning, Rotating, Rebuilding)}
