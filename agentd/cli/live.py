"""The live view of `agentd top`, by textual; nothing else of the command line imports it.

One client: a stream of what happens to agents, and once a second the daemon's counts; the list of agents only when
one of the two says that it changed.
"""

from __future__ import annotations

from typing import Any, ClassVar

import anyio
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Static

from agentd.aio import AsyncClient, connect
from agentd.cli.output import STATE_COLOURS, clean
from agentd.cli.overview import BORN, HEADS, ORDERS, Counted, counted, in_order, row_of, totals
from agentd.errors import AgentdError

PERIOD_S = 1.0
_STYLES = {31: "red", 32: "green", 33: "yellow", 35: "bold magenta", 36: "cyan", 2: "dim"}
_STATE = HEADS.index("STATE")


def run() -> None:
    """Show the view until its user leaves."""
    Top().run()


class Top(App[None]):
    """Every agent in one table, what waits for somebody first."""

    TITLE = "agentd top"
    ENABLE_COMMAND_PALETTE = False
    CSS = "#totals { height: auto; text-style: bold; } #filter { display: none; } #filter.shown { display: block; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        ("slash", "filter", "Filter"),
        ("s", "sort", "Sort"),
        ("escape", "forget", "All"),
    ]

    def __init__(self, *, autostart: bool = True) -> None:
        super().__init__()
        self.client: AsyncClient | None = None
        self.lists = 0  # how often the agents were asked for
        self._autostart = autostart
        self._agents: list[dict[str, Any]] = []
        self._shown: list[str] = []
        self._order, self._wanted = "state", ""
        self._before: Counted = BORN
        self._changed = True
        self._seen: object = None

    def compose(self) -> ComposeResult:
        """Lay the parts out."""
        yield Static(id="totals")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Input(placeholder="part of a name, state, team, profile or reason", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to listen to the daemon."""
        self.table.add_columns(*HEADS)
        self.table.focus()
        self.run_worker(self._feed(), exit_on_error=True)

    @property
    def table(self) -> DataTable[Text]:
        """Return the table of agents."""
        return self.query_one(DataTable)

    # the daemon

    async def _feed(self) -> None:
        """Follow the daemon; one that goes away is waited for."""
        autostart = self._autostart
        while True:
            try:
                async with connect(autostart=autostart) as self.client, anyio.create_task_group() as tasks:
                    autostart = False  # whoever ends the daemon meanwhile does not want it back for our sake
                    tasks.start_soon(self._follow, self.client)
                    await self._refresh_for_ever(self.client)
            except* AgentdError as lost:
                self._say(f"{lost.exceptions[0]}; waiting for a daemon")
            self.client, self._changed = None, True
            await anyio.sleep(PERIOD_S)

    async def _follow(self, client: AsyncClient) -> None:
        async for _event in client.stream("events.follow", {"types": ["agent.*"]}):
            self._changed = True

    async def _refresh_for_ever(self, client: AsyncClient) -> None:
        while True:
            status, metrics = await client.call("daemon.status"), await client.call("daemon.metrics")
            now = counted(status, metrics)
            self._say(f"{totals(status, self._before, now)} · by {self._order}")
            self._before = now
            seen = (now.messages, status["mailbox"].get("waiting"), status["agents"])
            if self._changed or seen != self._seen:
                self._changed, self._seen = False, seen
                self._agents = (await client.call("agents.list"))["agents"]
                self.lists += 1
            else:
                self._agents = [{**agent, "since_s": agent["since_s"] + PERIOD_S} for agent in self._agents]
            self._draw()
            await anyio.sleep(PERIOD_S)

    # the view

    def _say(self, line: str) -> None:
        self.query_one("#totals", Static).update(Text(clean(line)))

    def _draw(self) -> None:
        """Show the agents; where the same ones stand in the same order only what changed is written."""
        rows = in_order(self._agents, self._order, self._wanted)
        ids, table = [agent["id"] for agent in rows], self.table
        if ids != self._shown:
            kept = self._selected()
            table.clear()
            for agent in rows:
                table.add_row(*_cells(agent), key=agent["id"])
            self._shown = ids
            if kept in ids:
                table.move_cursor(row=ids.index(kept))
            return
        for number, agent in enumerate(rows):
            for column, text in enumerate(_cells(agent)):
                if table.get_cell_at((number, column)) != text:  # type: ignore[arg-type]  # a place in the table
                    table.update_cell_at((number, column), text, update_width=True)  # type: ignore[arg-type]

    def _selected(self) -> str:
        row = self.table.cursor_row
        return self._shown[row] if 0 <= row < len(self._shown) else ""

    # keys

    def action_sort(self) -> None:
        """Take the next order."""
        orders = list(ORDERS)
        self._order = orders[(orders.index(self._order) + 1) % len(orders)]
        self.notify(f"by {self._order}", timeout=1.0)
        self._draw()

    def action_filter(self) -> None:
        """Ask what to show."""
        self.query_one("#filter", Input).add_class("shown").focus()

    def action_forget(self) -> None:
        """Show all again."""
        line = self.query_one("#filter", Input)
        line.value = ""
        line.remove_class("shown")
        self.table.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what is found, as it is typed."""
        self._wanted = event.value
        self._draw()

    def on_input_submitted(self) -> None:
        """Go back to the table; what was typed stays."""
        self.table.focus()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Show an agent's screen."""
        agent = next((agent for agent in self._agents if agent["id"] == event.row_key.value), None)
        if agent:
            self.push_screen(AgentScreen(agent["id"], agent["name"]))


class AgentScreen(Screen[None]):
    """What stands on an agent's screen, as it changes; nothing can be typed here."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,enter", "app.pop_screen", "Back")]

    def __init__(self, agent_id: str, agent_name: str) -> None:
        super().__init__()
        self._agent_id = agent_id
        self._agent_name = agent_name

    def compose(self) -> ComposeResult:
        """Lay the parts out."""
        yield Static(Text(f"{self._agent_name} (read only; agentd attach {self._agent_name} hands it to you)", "bold"))
        with VerticalScroll():
            yield Static(id="screen")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.run_worker(self._look_for_ever())

    async def _look_for_ever(self) -> None:
        while True:
            self.query_one("#screen", Static).update(Text(clean(await self._text()), no_wrap=True))
            await anyio.sleep(PERIOD_S)

    async def _text(self) -> str:
        client = self.app.client if isinstance(self.app, Top) else None
        if client is None:
            return "no daemon is running"
        try:
            return str((await client.call("agents.capture", {"target": self._agent_id}))["text"])
        except AgentdError as error:
            return error.message


def _cells(agent: dict[str, Any]) -> list[Text]:
    """Return an agent's cells as texts that are shown to the letter, whatever stands in them."""
    cells = [Text(text, no_wrap=True) for text in row_of(agent)]
    cells[_STATE].style = _STYLES.get(STATE_COLOURS.get(agent["state"], 0), "")
    return cells
