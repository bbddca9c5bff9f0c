"""What can be wrong with what firmware is asked for. All are :class:`OtaError`."""


class OtaError(Exception):
    """Something that was asked of firmware cannot be done."""


class LaneFullError(OtaError):
    """So many changes of executions wait that no more are taken."""

    def __init__(self) -> None:
        super().__init__("too many changes of jobs wait to be carried out: try again a little later")


class ExecutionBusyError(OtaError):
    """Others kept changing the executions of the same thing."""

    def __init__(self, thing: str) -> None:
        super().__init__(f"the jobs of {thing} are being changed by others at the same time: try again")
        self.thing = thing
