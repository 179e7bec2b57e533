"""Who writes rationales: a file for each kind of teacher, and what all kinds share.

Files in the order of their imports: prompts (what is asked), prices, estimates, requests (which samples are still
wanted), samples/file (the rows that exist and what they cost), writing (a reply becomes a row), endpoint (what
OpenAI-compatible endpoints share), one file a kind (openai, batch, local, vllm, recorded), order (the command).
samples/ also judges, filters and merges the files that teachers wrote.

Another package adds a kind by an entry point of the group ``kpod_lightning.teachers``. It names a module or an object
with ``write(work: Work) -> None``, which runs in one process and turns requests into rows until none is left::

    def write(work):
        while (request := work.take()) is not None:
            reply = Reply(text=...)  # for request.messages
            work.add(request, reply, [], Decimal(0)).result()

Its prices are set by ``teacher.prices``.
"""
