"""Puts a stand-in where vLLM would be imported from."""

import sys
import types


def install(monkeypatch, llm, sampling_params, lora_request=None):
    """Let `vllm` be a module with these in the places of its LLM, SamplingParams and LoRARequest."""
    modules = {
        "vllm": {"LLM": llm, "SamplingParams": sampling_params},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": lora_request},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.exceptions": {"EngineDeadError": type("EngineDeadError", (Exception,), {})},
    }
    for name, values in modules.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
