from __future__ import annotations

from dataclasses import dataclass

from cluster_gateway_core.upstream.pool import ConnectionPool, IdleBudget


@dataclass(eq=False)
class Connection:
    is_open: bool = True
    is_reusable: bool = True


def make_pool(capacity: int = 2, budget: IdleBudget | None = None) -> ConnectionPool[Connection]:
    return ConnectionPool(capacity=capacity, idle_seconds=10, budget=budget or IdleBudget(100))


def test_newest_connection_is_taken_first() -> None:
    pool = make_pool()
    old, new = Connection(), Connection()
    assert [*pool.give(old, 0), *pool.give(new, 1)] == []

    assert [pool.take(), pool.take(), pool.take()] == [new, old, None]


def test_closed_connection_is_passed_over() -> None:
    pool = make_pool()
    first, second = Connection(), Connection()
    pool.give(first, 0)
    pool.give(second, 0)
    second.is_open = False

    assert pool.take() is first


def test_connection_that_cannot_be_used_again_is_returned_for_closing() -> None:
    connection = Connection(is_reusable=False)

    assert [*make_pool().give(connection, 0)] == [connection]


def test_oldest_goes_when_the_pool_is_full() -> None:
    pool = make_pool()
    connections = [Connection() for _ in range(3)]

    assert [[*pool.give(connection, 0)] for connection in connections] == [[], [], [connections[0]]]


def test_unused_connections_expire() -> None:
    pool = make_pool()
    old, new = Connection(), Connection()
    pool.give(old, 0)
    pool.give(new, 5)

    assert pool.expire(10) == []
    assert pool.expire(10.5) == [old]
    assert [*pool.give(Connection(), 15.5)] == [new]


def test_retired_pool_keeps_nothing() -> None:
    pool = make_pool()
    idle, busy = Connection(), Connection()
    pool.give(idle, 0)

    assert pool.retire() == [idle]
    assert [*pool.give(busy, 0)] == [busy]
    assert pool.take() is None
    assert repr(pool) == "<ConnectionPool: 0 idle, retired>"


def test_pools_share_a_budget_and_give_back_what_they_keep_no_longer() -> None:
    budget = IdleBudget(3)
    one, other = make_pool(budget=budget), make_pool(budget=budget)
    first = Connection()
    assert [*one.give(first, 0), *one.give(Connection(), 0), *other.give(Connection(), 0)] == []
    assert [*one.give(Connection(), 0)] == [first]
    assert [len([*other.give(Connection(), 0)]) for _ in range(2)] == [1, 1]
    assert budget.used == 3

    assert one.take() is not None
    assert budget.used == 2
    assert len(one.expire(100)) == 1
    assert budget.used == 1
    assert len(other.retire()) == 1
    assert budget.used == 0
