"""`/docs`: the API on one page, made from its OpenAPI description."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from hazard.web.templates import render

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def docs_page(request: Request) -> HTMLResponse:
    """Every route: what it takes, what it answers."""
    return render(
        "docs.j2",
        nav_entry="API",
        url=str(request.base_url).rstrip("/"),
        needs_token=request.app.state.sessions is not None,
        routes=describe_routes(request.app.openapi()),
    )


def describe_routes(openapi: dict[str, Any]) -> list[dict[str, Any]]:
    """What the page shows, in the order of the description."""
    schemas = openapi.get("components", {}).get("schemas", {})
    return [
        {
            "method": method.upper(),
            "path": path,
            "anchor": f"{method}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '')}",
            "said": _plain_description(operation.get("description", "")),
            "takes": [*_describe_parameters(operation), *_describe_body(operation)],
            "answers": [
                {
                    "status": status,
                    "said": _plain_description(answer.get("description", "")),
                    "fields": _response_fields(answer, schemas),
                }
                for status, answer in sorted(operation["responses"].items())
            ],
        }
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    ]


def _plain_description(text: str) -> str:
    """Without marks; what goes well is not said at length."""
    return "Done" if text == "Successful Response" else text.replace("`", "")


def _describe_parameters(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": one["name"], "is_required": one.get("required", False), "said": one.get("description", one["in"])}
        for one in operation.get("parameters", [])
    ]


def _describe_body(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "is_required": name in content["schema"].get("required", ()),
            "said": f"{schema.get('description', '')} ({kind})",
        }
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
        for name, schema in content["schema"].get("properties", {}).items()
    ]


def _response_fields(answer: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    """The names in an answer of JSON; errors all have the same two."""
    ref = answer.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
    name = ref.rpartition("/")[2]
    return [] if name == "Problem" else list(schemas.get(name, {}).get("properties", {}))
