"""How refinements are run, by environment variables with the prefix `WEFT_JOBS_`."""

from __future__ import annotations

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import BadConfig


class JobSettings(BaseSettings):
    """The queue's settings; every field is the environment variable `WEFT_JOBS_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="WEFT_JOBS_", extra="ignore", frozen=True)

    at_once: int = Field(
        1, ge=0, le=64, description="Refinements that run at the same time; 0: only in workers."
    )
    nice: int = Field(
        10, ge=0, le=19, description="How far a refinement steps back for others; 19 is furthest."
    )
    grace: float = Field(
        10.0, gt=0, le=600, description="Seconds that a cancelled refinement has to end by itself."
    )
    attempts: int = Field(
        3, ge=1, le=20, description="How often a refinement is started before it counts as failed."
    )
    lost_after: float = Field(
        30.0,
        ge=1,
        le=3600,
        description="Seconds of a worker's silence after which others take over what it ran.",
    )
    progress_interval: float = Field(
        0.5, ge=0, le=60, description="Least seconds between two stored progress lines."
    )


def load_job_settings() -> JobSettings:
    """The settings of the environment. Raises BadConfig `invalid`, naming each that is wrong."""
    try:
        return JobSettings()
    except ValidationError as error:
        wrong = (f"WEFT_JOBS_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise BadConfig("invalid", "; ".join(wrong)) from error
