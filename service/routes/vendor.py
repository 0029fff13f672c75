"""What requests in the shapes of other services have in common."""

from pydantic import BaseModel, ConfigDict, model_validator

from service.errors import BusyError, DeadlineError, ModelError, UnavailableError
from service.limits import whole_numbers
from service.state import problems

ERRORS = problems(ModelError, BusyError, UnavailableError, DeadlineError)
"""What these requests may be answered, beside what every request may be, for the OpenAPI document."""


class VendorRequest(BaseModel):
    """Base of what their clients send. Fields that it does not name are ignored: clients send many that mean
    nothing here.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    _whole_numbers = model_validator(mode="before")(whole_numbers)
