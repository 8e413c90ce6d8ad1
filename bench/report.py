"""The table: what was measured beside the targets."""

from msgspec import Struct

from bench.scenarios import Numbers

Runs = dict[str, dict[str, dict[str, Numbers]]]  # sync → system → scenario → numbers
SYNCS = {"os": "synced by the OS", "always": "every append synced"}
NAMES = {"floor": "floor", "floor_single": "floor, one append per delta", "millrace": "Millrace"}


QUIET = 0.15  # cores that others may use without spoiling a measurement


class Row(Struct, frozen=True):
    """A measure and its target: a bound from above, or from below when `at_least`."""

    scenario: str
    key: str
    label: str
    target: float | None = None
    target_synced: float | None = None
    at_least: bool = False

    def bound(self, sync: str) -> float | None:
        """The target under this sync setting."""
        synced = sync == "always" and self.target_synced is not None
        return self.target_synced if synced else self.target

    def is_met(self, sync: str, value: float) -> bool:
        """True when there is no target or `value` reaches it; never of NaN."""
        bound = self.bound(sync)
        return bound is None or (value >= bound if self.at_least else value < bound)


ROWS = (
    Row("first_delta_idle", "p50_ms", "first delta, idle, p50 ms", 1.0, 1.6),
    Row("first_delta_idle", "p99_ms", "first delta, idle, p99 ms"),
    Row("first_delta_idle", "rested_p50_ms", "first delta, after 20 ms of rest, p50 ms"),
    Row("paced", "p50_ms", "delta latency, 200 x 20/s, p50 ms", 0.8),
    Row("paced", "p99_ms", "delta latency, 200 x 20/s, p99 ms", 4.0),
    Row("paced", "cpu_s_per_million", "CPU s per million deltas, paced", 250),
    *(
        row
        for sessions, said in ((2_000, "2,000 turns side by side, 1/s each"), (5_000, "5,000 turns, 1 in 4 s each"))
        for row in (
            Row("many", f"{sessions}.deltas_per_s", f"{said}: deltas/s"),
            Row("many", f"{sessions}.p50_ms", "... delta latency, p50 ms"),
            Row("many", f"{sessions}.p99_ms", "... p99 ms"),
            Row("many", f"{sessions}.cpu_s_per_million", "... CPU s per million deltas"),
        )
    ),
    Row("flat_out", "deltas_per_s", "deltas/s, 50 sessions flat out", 100_000, at_least=True),
    Row("flat_out", "deltas_per_frame", "deltas a frame, flat out"),
    Row("flat_out", "cpu_s_per_million", "CPU s per million deltas, flat out", 10),
    Row("killed", "completed_percent", "runner killed in mid-turn: completed, %", 100, at_least=True),
    Row("killed", "clean_percent", "... and clean, %", 100, at_least=True),
    Row("killed", "takeover_p50_ms", "takeover after the kill, p50 ms"),
    Row("killed", "takeover_max_ms", "takeover after the kill, max ms", 3000),
    Row("cancelled", "cancelled_percent", "turns cancelled in mid-stream, %", 100, at_least=True),
    Row("cancelled", "last_delta_p50_ms", "... cancel to the last delta, p50 ms"),
    Row("cancelled", "last_delta_max_ms", "... max ms", 100),
    Row("cancelled", "end_p50_ms", "... cancel to `turn_end`, p50 ms"),
    Row("cancelled", "end_max_ms", "... max ms"),
    Row("cancelled", "append_p50_ms", "one append and the answer to it, p50 ms"),
    Row("cancelled", "append_max_ms", "... max ms"),
    *(
        row
        for way in ("stalled", "streaming")
        for row in (
            Row("cancelled", f"{way}_closed_p50_ms", f"cancel to the closed connection of a {way} model, p50 ms"),
            Row("cancelled", f"{way}_closed_max_ms", "... max ms", 100),
            Row("cancelled", f"{way}_end_p50_ms", "... cancel to `turn_end`, p50 ms"),
        )
    ),
    Row("joins", "joined_percent", "1,000 joins at once: let in, %", 99, at_least=True),
    Row("joins", "ready_p50_ms", "... ready, p50 ms"),
    Row("joins", "ready_p99_ms", "... ready, p99 ms"),
    Row("joins", "first_byte_max_ms", "... first byte, max ms", 2000),
    Row("fan_out", "fan_100_p50_ms", "one session to 100 sockets, p50 ms"),
    Row("fan_out", "fan_100_p99_ms", "... p99 ms"),
    Row("fan_out", "fan_1000_p50_ms", "one session to 1,000 sockets, p50 ms"),
    Row("fan_out", "fan_1000_p99_ms", "... p99 ms"),
    Row("fan_out", "fan_1000_missing", "... deltas missing", 1),
    Row("idle", "kib_per_idle_socket", "KiB of the edge for each of 2,000 idle sockets"),
    Row("drops", "dropped", "connections dropped in mid-stream"),
    Row("drops", "drop_lost", "... events lost", 1),
    Row("drops", "drop_repeated", "... events repeated", 1),
    Row("drops", "drop_reordered", "... sessions reordered", 1),
    Row("drops", "caught_up_p50_ms", "... reconnect to caught up, p50 ms"),
    Row("drops", "caught_up_p99_ms", "... reconnect to caught up, p99 ms"),
    Row("stalled", "healthy_alone_p50_ms", "500 healthy clients alone, p50 ms"),
    Row("stalled", "healthy_alone_p99_ms", "... p99 ms"),
    Row("stalled", "healthy_beside_p50_ms", "500 healthy beside 500 stalled clients, p50 ms"),
    Row("stalled", "healthy_beside_p99_ms", "... p99 ms"),
    Row("waiting", "turns", "turns that wait for a person"),
    *(
        row
        for role in ("agent_runner", "tool_runner", "nats-server")
        for row in (
            Row("waiting", f"kib.{role}", f"... KiB of {role} for each"),
            Row("waiting", f"cores.{role}", f"... cores that {role} is busy with"),
        )
    ),
    Row("waiting", "kib_s_in.nats-server", "... KiB/s that nats-server is told, in all"),
    Row("waiting", "kib_s_out.nats-server", "... KiB/s that it tells and stores"),
    Row("waiting", "woken_p50_ms", "... decision to the end of the turn, p50 ms"),
    Row("waiting", "woken_max_ms", "... max ms"),
    *(
        row
        for facts, said in ((100, "100"), (25_000, "25,000"), (100_000, "100,000"))
        for row in (
            Row("woken", f"warm_{facts}_p50_ms", f"after {said} events: message to first delta, p50 ms"),
            Row("woken", f"cold_{facts}_p50_ms", "... in a runner just started, p50 ms"),
            Row("woken", f"cold_{facts}_max_ms", "... max ms"),
        )
    ),
    Row("waiting_full", "kib.agent_runner", "with a full conversation: KiB of agent_runner for each"),
    Row("waiting_full", "kib.tool_runner", "... KiB of tool_runner"),
    Row("waiting_full", "woken_p50_ms", "... decision to the end of the turn, p50 ms"),
    Row("stalled", "edge_beside_grew_kib", "... memory the edge grew by, KiB"),
)


def table(runs: Runs) -> str:
    """One Markdown table per sync setting, and remarks on faults and on a busy machine."""
    lines = ["A Millrace number that misses its target is bold.", ""]
    for sync, systems in runs.items():
        names = [name for name in NAMES if name in systems]
        lines.append(f"| {SYNCS[sync]} | " + " | ".join(map(NAMES.__getitem__, names)) + " | target |")
        lines.append("|---" * (len(names) + 2) + "|")
        for row in ROWS:
            cells = [_cell(row, sync, name, systems[name]) for name in names]
            if any(cell != "-" for cell in cells):
                lines.append(f"| {row.label} | {' | '.join(cells)} | {_target(row, sync)} |")
        for name in names:
            for scenario, numbers in systems[name].items():
                if remark := _remark(numbers):
                    lines.append(f"\n{NAMES[name]}, {scenario}: {remark}.")
        lines.append("")
    return "\n".join(lines)


def _remark(numbers: Numbers) -> str:
    faults = [f"{numbers.get(key, 0):.0f} {key}" for key in ("unclean", "lost", "repeated", "strays")]
    remarks = [", ".join(faults)] if numbers.get("unclean") or numbers.get("strays") else []
    if (foreign := numbers.get("foreign_cores_busy", 0.0)) > QUIET:
        remarks.append(f"not to be trusted, other programs kept {foreign:.1f} cores busy")
    return "; ".join(remarks)


def _cell(row: Row, sync: str, system: str, scenarios: dict[str, Numbers]) -> str:
    value = scenarios.get(row.scenario, {}).get(row.key)
    if value is None:
        return "-"
    is_met = system != "millrace" or row.is_met(sync, value)
    return _number(value) if is_met else f"**{_number(value)}**"


def _target(row: Row, sync: str) -> str:
    bound = row.bound(sync)
    return "" if bound is None else f"{'≥' if row.at_least else '<'} {_number(bound)}"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 and value != int(value) else f"{value:,.0f}"
