"""A roster's declared agent as its framework's own objects: `make(agent, model)` gives a function from text to answer.

`model` is the address of an OpenAI-compatible endpoint, or None for one inside the process that answers at once.
AutoGen agents have a model client each, which is what AutoGen gives them; LangGraph's nodes share one HTTP client.
"""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Answer = Callable[[str], str]
REPLY = "This is done. TERMINATE"


def make(agent: dict[str, Any], model: str | None) -> Answer:
    """The agent's function."""
    section = agent["behaviour"]
    if "autogen" in section:
        return _autogen(agent["name"], section["autogen"], model)
    return _langgraph(section["langgraph"], model)


def _autogen(name: str, behaviour: dict[str, Any], model: str | None) -> Answer:
    from autogen import ConversableAgent, GroupChat, GroupChatManager

    config: dict[str, Any] = {"model": "instant", "model_client_cls": "Instant"}
    if model is not None:
        config = {"model": "instant", "base_url": model, "api_key": "none", "price": [0, 0]}
    llm = {"config_list": [config], "cache_seed": None}

    def agent(name: str, message: str) -> Any:
        made = ConversableAgent(
            name, system_message=message, llm_config=copy.deepcopy(llm), human_input_mode="NEVER",
            code_execution_config=False,
        )  # fmt: skip
        if model is None:
            made.register_model_client(model_client_cls=Instant)
        return made

    if behaviour["kind"] == "coordination":
        members = [agent(one["name"], one["system_message"]) for one in behaviour["participants"]]

        def converse(text: str) -> str:
            chat = GroupChat(members, [], max_round=behaviour["max_rounds"], speaker_selection_method="round_robin")
            manager = GroupChatManager(chat, llm_config=False, silent=True)
            user = ConversableAgent("user", llm_config=False, human_input_mode="NEVER")
            user.initiate_chat(manager, message=text, silent=True)
            return str(chat.messages[-1]["content"])

        return converse
    assistant = agent(name.replace("-", "_")[:60], behaviour["system_message"])
    if behaviour["kind"] == "task_execution":

        def work(text: str) -> str:
            user = ConversableAgent(
                "user", llm_config=False, human_input_mode="NEVER", code_execution_config=False,
                is_termination_msg=lambda message: "TERMINATE" in (message.get("content") or ""),
            )  # fmt: skip
            turns = behaviour["max_rounds"]
            return str(user.initiate_chat(assistant, message=text, max_turns=turns, silent=True).chat_history[-1])

        return work

    def reply(text: str) -> str:
        return str(assistant.generate_reply(messages=[{"role": "user", "content": text}]))

    return reply


class Instant:
    """AutoGen's `ModelClient` protocol, answered in place."""

    def __init__(self, config: dict[str, Any], **_: Any) -> None:
        """Nothing to prepare."""

    def create(self, params: dict[str, Any]) -> SimpleNamespace:
        """The one reply."""
        message = SimpleNamespace(content=REPLY, function_call=None, tool_calls=None)
        return SimpleNamespace(choices=[SimpleNamespace(message=message)], model="instant", cost=0.0)

    def message_retrieval(self, response: SimpleNamespace) -> list[str]:
        """Its text."""
        return [choice.message.content for choice in response.choices]

    def cost(self, response: SimpleNamespace) -> float:
        """Nothing."""
        return 0.0

    @staticmethod
    def get_usage(response: SimpleNamespace) -> dict[str, Any]:
        """Nothing."""
        return {}


def _langgraph(behaviour: dict[str, Any], model: str | None) -> Answer:
    from typing import Annotated, TypedDict

    from langgraph.graph import END, START, StateGraph

    ask = _asker(model)

    class State(TypedDict):
        said: Annotated[dict[str, str], lambda old, new: {**old, **new}]

    def prompt(node: dict[str, Any]) -> Callable[[Any], Any]:
        def run(state: Any) -> Any:
            text = node["prompt"]
            for name, said in state["said"].items():
                text = text.replace("{" + name + "}", said)
            return {"said": {node["name"]: ask(node["system_message"], text)}}

        return run

    graph = StateGraph(State)
    nodes = {node["name"]: node for node in behaviour["nodes"]}
    for node in nodes.values():
        if node["type"] == "branch":
            graph.add_node(node["name"], lambda state: {"said": {}})
            graph.add_conditional_edges(node["name"], _chooser(node))
            continue
        graph.add_node(node["name"], prompt(node))
        if not node.get("next"):
            graph.add_edge(node["name"], END)
    for name in nodes:
        before = [other["name"] for other in nodes.values() if name in other.get("next", ())]
        if before:
            graph.add_edge(before if len(before) > 1 else before[0], name)
    for name in behaviour["start"]:
        graph.add_edge(START, name)
    compiled = graph.compile()
    last = list(nodes)[-1]

    def answer(text: str) -> str:
        said = compiled.invoke({"said": {"input": text}})["said"]
        return said.get(last) or list(said.values())[-1]

    return answer


def _chooser(node: dict[str, Any]) -> Callable[[Any], str]:
    def choose(state: Any) -> str:
        text = state["said"]["input"]
        for case in node["cases"]:
            if len(text) > case.get("longer_than", len(text)) or case.get("contains", "\0") in text:
                return str(case["to"])
        return str(node["otherwise"])

    return choose


def _asker(model: str | None) -> Callable[[str, str], str]:
    if model is None:
        return lambda system, text: REPLY
    return _shared(model)


_clients: dict[str, Callable[[str, str], str]] = {}


def _shared(model: str) -> Callable[[str, str], str]:
    if model not in _clients:
        import httpx

        client = httpx.Client(base_url=model, timeout=60, limits=httpx.Limits(max_connections=100))

        def ask(system: str, text: str) -> str:
            messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
            answer = client.post("chat/completions", json={"model": "instant", "messages": messages})
            answer.raise_for_status()
            return str(answer.json()["choices"][0]["message"]["content"])

        _clients[model] = ask
    return _clients[model]
