from __future__ import annotations

from dataclasses import dataclass, field

from cluster_gateway_facade.serving.admission import Admission


@dataclass(eq=False)
class Visitor:
    busy: bool = False
    evicted: bool = field(default=False, init=False)

    def evict(self) -> None:
        self.evicted = True


def make_admission(*, total: int = 10, strangers: int = 4, strangers_per_address: int = 2) -> Admission:
    return Admission(total=total, strangers=strangers, strangers_per_address=strangers_per_address)


def admit(admission: Admission, address: str, *, busy: bool = False, known: bool = False) -> Visitor:
    visitor = Visitor(busy=busy)
    assert admission.admit(visitor, address)
    if known:
        admission.recognise(visitor)
    return visitor


def test_the_oldest_idle_stranger_of_an_address_makes_room_for_the_next() -> None:
    admission = make_admission()
    busy, idle = admit(admission, "a", busy=True), admit(admission, "a")
    other = admit(admission, "b")
    admit(admission, "a")
    assert (busy.evicted, idle.evicted, other.evicted) == (False, True, False)


def test_the_oldest_goes_where_all_are_busy() -> None:
    admission = make_admission()
    first, second = admit(admission, "a", busy=True), admit(admission, "a", busy=True)
    admit(admission, "a")
    assert (first.evicted, second.evicted) == (True, False)


def test_strangers_of_many_addresses_share_one_room() -> None:
    admission = make_admission()
    visitors = [admit(admission, str(number)) for number in range(6)]
    assert [visitor.evicted for visitor in visitors] == [True, True, False, False, False, False]
    assert admission.counts == (0, 4)


def test_known_connections_take_no_room_of_strangers_and_are_never_evicted() -> None:
    admission = make_admission()
    known = [admit(admission, "hub", known=True) for _ in range(9)]
    stranger = admit(admission, "a")
    newcomer = admit(admission, "hub")
    assert stranger.evicted
    assert not newcomer.evicted
    assert not any(visitor.evicted for visitor in known)
    assert admission.counts == (9, 1)


def test_a_newcomer_is_refused_only_where_all_belong_to_known_ones() -> None:
    admission = make_admission(total=2)
    for _ in range(2):
        admit(admission, "hub", known=True)
    assert not admission.admit(Visitor(), "hub")
    assert admission.counts == (2, 0)


def test_a_flood_from_the_hub_s_own_address_lets_the_hub_in() -> None:
    admission = make_admission()
    for _ in range(100):
        admit(admission, "hub")
    known = admit(admission, "hub", known=True)
    for _ in range(100):
        admit(admission, "hub")
    assert not known.evicted


def test_what_has_ended_is_forgotten_however_it_ended() -> None:
    admission = make_admission()
    stranger, known = admit(admission, "a"), admit(admission, "a", known=True)
    for _ in range(2):
        admission.release(stranger)
        admission.release(known)
        admission.recognise(stranger)
    assert admission.counts == (0, 0)
    assert not admission._by_address
