# SPDX-License-Identifier: Apache-2.0
"""Loading a model takes seconds, or minutes where an engine is built: it is done in a thread beside the node's."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.formats import messages
from instance_flow.network.execution import ExecutionConfig
from instance_flow.network.installation import bundled_model_path
from instance_flow.structures import InstanceFlowError
from instance_flow_ros.parameters import NONE, NodeConfig


class Loading(Thread):
    """Loads a model and warms it up. ``doing``: what it is at, in words. ``goes_on``: asked between two steps."""

    def __init__(
        self, config: NodeConfig, execution: ExecutionConfig, assembly: AssemblyConfig, goes_on: Callable[[], bool]
    ) -> None:
        super().__init__(name="instance_flow_loading")
        self.doing = ""
        self.ended = Event()
        self._config, self._execution, self._assembly, self._goes_on = config, execution, assembly, goes_on
        self._pipeline: Pipeline | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        """What the thread does."""
        try:
            config = self._config
            model = config.model or bundled_model_path()
            self._progress(f"loading model {model} for provider {config.provider}")
            pipeline = Pipeline.load(
                model, config.provider, self._assembly, execution=self._execution, size=config.size
            )
            pipeline.warmup(pipeline.info.input_size, self._progress, depth=config.depth != NONE)
            messages.warmup()
            self._pipeline = pipeline
        except Exception as error:  # It is raised again where the result is asked for.
            self._error = error
        finally:
            self.ended.set()

    def result(self) -> Pipeline:
        """The warm pipeline, or the error that there was instead."""
        if self._error is not None:
            raise self._error
        assert self._pipeline is not None
        return self._pipeline

    def _progress(self, doing: str) -> None:
        if not self._goes_on():
            raise InstanceFlowError("told to end while the model was loaded")
        self.doing = doing
