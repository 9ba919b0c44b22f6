"""The page `/docs`: the API on one page, made from its OpenAPI description."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from hazard.web.templates import render

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def docs_page(request: Request) -> HTMLResponse:
    """Show every route with its parameters and responses."""
    return render(
        "docs.j2",
        nav_entry="API",
        url=str(request.base_url).rstrip("/"),
        needs_token=request.app.state.sessions is not None,
        routes=describe_routes(request.app.openapi()),
    )


def describe_routes(openapi: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the page shows of each route, in the order of the OpenAPI description."""
    schemas = openapi.get("components", {}).get("schemas", {})
    return [
        {
            "method": method.upper(),
            "path": path,
            "anchor": f"{method}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '')}",
            "description": _plain_description(operation.get("description", "")),
            "parameters": [*_describe_parameters(operation), *_describe_body(operation)],
            "responses": [
                {
                    "status": status,
                    "description": _plain_description(response.get("description", "")),
                    "fields": _response_fields(response, schemas),
                }
                for status, response in sorted(operation["responses"].items())
            ],
        }
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    ]


def _plain_description(text: str) -> str:
    """Return a description without Markdown's backticks; `OK` for the framework's default text."""
    return "OK" if text == "Successful Response" else text.replace("`", "")


def _describe_parameters(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": parameter["name"],
            "is_required": parameter.get("required", False),
            "description": parameter.get("description", parameter["in"]),
        }
        for parameter in operation.get("parameters", [])
    ]


def _describe_body(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "is_required": name in content["schema"].get("required", ()),
            "description": f"{schema.get('description', '')} ({media_type})",
        }
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items()
        for name, schema in content["schema"].get("properties", {}).items()
    ]


def _response_fields(response: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    """Return the field names of a JSON response; none for errors, which all have the same two."""
    ref = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
    name = ref.rpartition("/")[2]
    return [] if name == "Problem" else list(schemas.get(name, {}).get("properties", {}))
