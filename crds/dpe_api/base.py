"""The base class of every model in the contract."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """Immutable, camelCase on the wire, and refuses fields that it does not know."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    def wire(self) -> dict[str, object]:
        """The JSON form: camelCase, enums and times as strings, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
