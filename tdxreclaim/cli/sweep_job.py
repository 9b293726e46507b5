"""From a plan to a job: each host that it names is decided about as `simulate` does."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from tdxreclaim.cli.host_options import read_named_host
from tdxreclaim.costs.scene import identified_cpu, set_scene
from tdxreclaim.engine.plan import ClearWhen, Order
from tdxreclaim.errors import MalformedInputError, UsageError
from tdxreclaim.policy.decide import decide
from tdxreclaim.sweep.draws import Asked
from tdxreclaim.sweep.kinds import KERNEL, OPEN
from tdxreclaim.sweep.trials import Job, Setting

if TYPE_CHECKING:
    from tdxreclaim.costs.calibration import Calibration
    from tdxreclaim.policy.model import Decision
    from tdxreclaim.sweep.plan import SweepPlan

_MOST_HOSTS = 1024


def make_job(plan: SweepPlan, calibration: Calibration, what: str) -> Job:
    """Return the job of a plan; *what* names the plan in errors.

    Raises:
        MalformedInputError: a CPU or kernel is none that runs TDs, or the
            calibration leaves no cause open; ``why`` starts with the field's path.
    """
    for i, cause in enumerate(plan.values("cause")):
        if cause != OPEN and cause not in calibration.causes:
            why = f"calibration {calibration.name} leaves no cause open"
            raise MalformedInputError(what, f"{_field(plan, 'cause', i)}: {why}")
    cpus, kernels = plan.values("cpu"), plan.values("kernel")
    if len(cpus) * len(kernels) > _MOST_HOSTS:
        why = f"{len(cpus)} CPUs x {len(kernels)} kernels: at most {_MOST_HOSTS} hosts"
        raise MalformedInputError(what, f"axes: {why}")
    settings: dict[Asked, Setting] = {}
    assumed: dict[str, None] = {}
    for (i, cpu), (j, kernel) in product(enumerate(cpus), enumerate(kernels)):
        try:
            decision = decide(read_named_host(_text(cpu), _text(kernel)))
            for order, clear in product(plan.values("order"), plan.values("clear")):
                asked = Asked(_text(cpu), _text(kernel), str(order), str(clear))
                settings[asked], said = _setting(decision, asked)
                assumed.update(dict.fromkeys(said))
            cpu_id, release = identified_cpu(decision), decision.kernel.release
            assumed.update(dict.fromkeys(calibration.warnings(cpu=cpu_id, kernel=release)))
        except UsageError as error:
            at_fault = ("kernel", j) if error.what.removeprefix("--") == "kernel" else ("cpu", i)
            raise MalformedInputError(what, f"{_field(plan, *at_fault)}: {error.why}") from error
    return Job(plan=plan, calibration=calibration, settings=settings, assumed=tuple(assumed))


def _setting(decision: Decision, asked: Asked) -> tuple[Setting, tuple[str, ...]]:
    scene = set_scene(
        decision,
        packages=1,
        order=Order(asked.order),
        clearing=None if asked.clear == KERNEL else ClearWhen(asked.clear),
    )
    setting = Setting(
        cpu=scene.cpu,
        kernel=scene.kernel,
        affected=scene.platform.erratum,
        order=scene.plan.order,
        clearing=scene.plan.clearing,
    )
    return setting, scene.assumed


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _field(plan: SweepPlan, name: str, number: int) -> str:
    listed = any(axis.name == name and axis.varies for axis in plan.axes)
    return f"axes.{name}[{number}]" if listed else f"axes.{name}"
