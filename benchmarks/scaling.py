"""The scaling rules of a plan, and what CloudWatch tells them, late and with gaps.

The formulas, thresholds, cooldowns and shares of Spot are read from the plan. Modelled after AWS's
documentation, and never compared with AWS itself:
- each metric is one value a minute, seen 60 to 180 s after it; each may be missing; a queue that
  nothing asked about for 6 h tells nothing for up to 15 min more;
- an alarm looks at its newest points that are there, a few minutes back;
- target tracking acts after three minutes above its target or fifteen below 90 % of it, in
  proportion to the capacity, and counts what the running cooldown's step added as part of it;
"""

from __future__ import annotations

import ast
import math
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in ("", "tests")]

Series = list[float | None]
STEP_S = 10
LAG_S = (60, 180)
MISSING = 0.05
"""Share of the points that never come."""
LOOK_BACK = 5
"""Minutes before its own periods in which an alarm still finds points
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html)."""
QUIET_S, WAKE_S = 6 * 3600, 15 * 60
"""An SQS queue unused for so long tells nothing, and again so long after its next use at most."""
TASK_HOUR_USD = 0.206
"""4 vCPU, 8 GB, 100 GB on demand, x86 (docs/cost.md has where it is quoted from)."""


class Expression:
    """A CloudWatch metric-math expression of +, -, *, /, comparisons, AND, OR, IF and FILL."""

    def __init__(self, text: str) -> None:
        plain = text.replace(" AND ", " and ").replace(" OR ", " or ")
        self._tree = ast.parse(plain, mode="eval").body

    def over(self, metrics: Mapping[str, Series]) -> Series:
        """Return the value of each minute; None where a point that it needs is missing."""
        length = len(next(iter(metrics.values())))
        return self._value(self._tree, metrics, length)

    def _value(self, node: ast.expr, metrics: Mapping[str, Series], length: int) -> Series:
        def of(inner: ast.expr) -> Series:
            return self._value(inner, metrics, length)

        match node:
            case ast.Constant(value=number):
                return [float(number)] * length
            case ast.Name(id=name):
                return metrics[name]
            case ast.BinOp(left=left, op=op, right=right):
                return _each(lambda a, b: _arithmetic(op, a, b), of(left), of(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return _each(lambda a, b: float(_holds(op, a, b)), of(left), of(right))
            case ast.BoolOp(op=op, values=values):
                decide = all if isinstance(op, ast.And) else any
                return _each(lambda *each: float(decide(each)), *map(of, values))
            case ast.Call(func=ast.Name(id="IF"), args=[test, yes, no]):
                return _each(lambda c, a, b: a if c else b, of(test), of(yes), of(no))
            case ast.Call(func=ast.Name(id="FILL"), args=[inner, filler]):
                return _filled(of(inner), filler)
        raise ValueError(f"This simulation does not know {ast.unparse(node)}.")


def _each(function: Callable[..., float | None], *series: Series) -> Series:
    return [None if None in row else function(*row) for row in zip(*series, strict=True)]


def _filled(series: Series, filler: ast.expr) -> Series:
    match filler:
        case ast.Name(id="REPEAT"):
            last: float | None = None
            found: Series = []
            for value in series:
                last = value if value is not None else last
                found.append(last)
            return found
        case ast.Constant(value=number):
            return [float(number) if value is None else value for value in series]
    raise ValueError(f"This simulation does not know a filling of {ast.unparse(filler)}.")


def _arithmetic(op: ast.operator, a: float, b: float) -> float | None:
    match op:
        case ast.Add():
            return a + b
        case ast.Sub():
            return a - b
        case ast.Mult():
            return a * b
        case ast.Div():
            return a / b if b else None
    raise ValueError(f"This simulation does not know {op}.")


def _holds(op: ast.cmpop, a: float, b: float) -> bool:
    match op:
        case ast.Gt():
            return a > b
        case ast.GtE():
            return a >= b
        case ast.Lt():
            return a < b
        case ast.LtE():
            return a <= b
        case ast.Eq():
            return a == b
    raise ValueError(f"This simulation does not know {op}.")


@dataclass(frozen=True)
class Alarm:
    """When a metric breaches: `datapoints` of the newest `periods` points."""

    expression: Expression
    above: float
    periods: int
    datapoints: int

    def newest(self, values: Series) -> list[float]:
        """Return the points that it looks at, of those that are there."""
        return [v for v in values[-(self.periods + LOOK_BACK) :] if v is not None][-self.periods :]

    def breaches(self, values: Series) -> bool:
        """Return whether it fires; missing points do not breach."""
        return sum(value > self.above for value in self.newest(values)) >= self.datapoints


@dataclass(frozen=True)
class Rules:
    """How one profile's service scales, as its plan says."""

    tracked: Expression
    target: float
    out_cooldown_s: float
    in_cooldown_s: float
    zero: Alarm
    zero_step: int
    zero_cooldown_s: float
    capacity: tuple[int, int]


def rules_of(resources: Sequence[Mapping[str, Any]], profile: str) -> Rules:
    """Read the rules of one profile from a plan's resources."""

    def one(kind: str, name: str) -> Mapping[str, Any]:
        where = f'["{profile}"].{kind}.{name}'
        (found,) = [r["values"] for r in resources if where in r["address"]]
        return found

    tracking = one("aws_appautoscaling_policy", "backlog_per_task")
    tracking = tracking["target_tracking_scaling_policy_configuration"][0]
    metrics = tracking["customized_metric_specification"][0]["metrics"]
    step = one("aws_appautoscaling_policy", "from_zero")["step_scaling_policy_configuration"][0]
    alarm = one("aws_cloudwatch_metric_alarm", 'waiting_and_nobody_runs["from-zero"]')
    target = one("aws_appautoscaling_target", "this")
    return Rules(
        tracked=Expression(next(m["expression"] for m in metrics if m["return_data"])),
        target=tracking["target_value"],
        out_cooldown_s=tracking["scale_out_cooldown"],
        in_cooldown_s=tracking["scale_in_cooldown"],
        zero=Alarm(
            Expression(next(q["expression"] for q in alarm["metric_query"] if q["expression"])),
            alarm["threshold"],
            alarm["evaluation_periods"],
            alarm["datapoints_to_alarm"] or alarm["evaluation_periods"],
        ),
        zero_step=step["step_adjustment"][0]["scaling_adjustment"],
        zero_cooldown_s=step["cooldown"],
        capacity=(target["min_capacity"], target["max_capacity"]),
    )


@dataclass
class Told:
    """One metric as CloudWatch gives it: a value a minute, and when each is seen."""

    values: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)

    def by(self, now: float, minutes: int) -> Series:
        """Return the newest `minutes` values, None for those not seen yet."""
        pairs = zip(self.values[-minutes:], self.seen[-minutes:], strict=True)
        return [value if seen <= now else None for value, seen in pairs]


class Farm(Protocol):
    """What is measured and scaled: one profile's queue and service."""

    rules: Rules
    random: random.Random
    desired: int
    used: float

    @property
    def waiting(self) -> int:
        """The tasks that wait in the queue."""

    @property
    def busy(self) -> int:
        """The tasks that are in work."""

    def running(self, now: float) -> int:
        """Return how many workers run."""


class Metrics:
    """What CloudWatch is told of a farm."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.told = {name: Told() for name in ("waiting", "inwork", "running")}
        self._awake = -math.inf

    def note(self, now: float) -> None:
        """Record this minute's values, each to be seen later or never."""
        farm, draw = self.farm, self.farm.random
        if self._quiet(now):
            self._awake = math.inf
        elif self._awake == math.inf:
            self._awake = now + draw.uniform(WAKE_S / 3, WAKE_S)
        running = farm.running(now)
        values = {"waiting": farm.waiting, "inwork": farm.busy, "running": running}
        lags = [draw.uniform(*LAG_S) for _ in range(2)]
        for name, value in values.items():
            late = lags[name == "running"]
            silent = name != "running" and now < self._awake
            gone = silent or draw.random() < MISSING
            self.told[name].values.append(value)
            self.told[name].seen.append(math.inf if gone else now + late)

    def _quiet(self, now: float) -> bool:
        return now - self.farm.used > QUIET_S

    def by(self, now: float, minutes: int) -> dict[str, Series]:
        """Return each metric's newest minutes."""
        return {name: told.by(now, minutes) for name, told in self.told.items()}


class Scaler:
    """Application Auto Scaling with a target and a step policy."""

    def __init__(self, farm: Farm, metrics: Metrics) -> None:
        self.farm, self.metrics = farm, metrics
        self.out_until = self.in_until = self.zero_until = -math.inf
        self.out_base = self.zero_base = 0
        self.actions = 0

    def act(self, now: float) -> None:
        """Evaluate both policies once, as every minute."""
        rules, farm = self.farm.rules, self.farm
        seen = self.metrics.by(now, 15 + LOOK_BACK)
        wanted = max(self._tracked(now, rules.tracked.over(seen)), self._from_zero(now, seen))
        low, high = rules.capacity
        wanted = min(max(wanted, low), high)
        if wanted > farm.desired:
            self.out_base = farm.desired if now >= self.out_until else self.out_base
            self.out_until = now + rules.out_cooldown_s
        elif wanted < farm.desired:
            self.in_until = now + rules.in_cooldown_s
        self.actions += wanted != farm.desired
        farm.desired = wanted

    def _tracked(self, now: float, values: Series) -> int:
        rules, farm = self.farm.rules, self.farm
        high = [v for v in values[-(3 + LOOK_BACK) :] if v is not None][-3:]
        low = [v for v in values if v is not None][-15:]
        if len(high) == 3 and min(high) > rules.target:
            base = self.out_base if now < self.out_until else farm.desired
            return max(farm.desired, math.ceil(base * high[-1] / rules.target))
        if len(low) == 15 and max(low) < 0.9 * rules.target and now >= self.in_until:
            return min(farm.desired, math.ceil(farm.desired * low[-1] / rules.target))
        return farm.desired

    def _from_zero(self, now: float, seen: Mapping[str, Series]) -> int:
        rules, farm = self.farm.rules, self.farm
        if not rules.zero.breaches(rules.zero.expression.over(seen)):
            return 0
        if now >= self.zero_until:
            self.zero_base, self.zero_until = farm.desired, now + rules.zero_cooldown_s
        return self.zero_base + rules.zero_step


def offline_resources() -> list[dict[str, Any]]:
    """Plan the example offline; return the plan's resources."""
    from tests.infra.terraform import VARIABLES, Terraform, planned

    with tempfile.TemporaryDirectory() as folder:
        return planned(Terraform(Path(folder)).plan(*VARIABLES))
