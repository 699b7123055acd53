"""`recipe ...`: recipes without a model."""

from __future__ import annotations

import json

import click

from peft_instruct.cli.options import json_option, set_option
from peft_instruct.cli.output import show, shown


@click.group()
def recipe() -> None:
    """List, show, explain and check recipes."""


@recipe.command("list")
@json_option
def recipe_list(as_json: bool) -> None:
    """List the shipped recipes."""
    from peft_instruct.commands.recipes import list_recipes

    show(list_recipes(), as_json)


@recipe.command("show")
@click.argument("name")
def recipe_show(name: str) -> None:
    """Print a recipe file as it is written."""
    from peft_instruct.commands.recipes import show_recipe

    click.echo(shown(show_recipe(name)), nl=False)


@recipe.command("explain")
@click.argument("name")
@set_option
@json_option
def recipe_explain(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print every value of a recipe with where it came from."""
    from peft_instruct.commands.recipes import explain_recipe

    show(explain_recipe(name, overrides), as_json)


@recipe.command("validate")
@click.argument("names", nargs=-1, required=True)
@set_option
@json_option
def recipe_validate(names: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Check recipes and tell all their problems at once; loads no model."""
    from peft_instruct.commands.recipes import validate_recipes

    show(validate_recipes(names, overrides), as_json)


@recipe.command("schema")
def recipe_schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    from peft_instruct.recipe.writing import schema

    click.echo(json.dumps(schema(), indent=2))
