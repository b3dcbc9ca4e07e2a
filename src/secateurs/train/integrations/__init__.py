"""The pruner inside other libraries' training loops; each file needs the extra of its library.

Under Accelerate there is nothing to add: ``pruner.attach(prepared_optimizer)`` and
``accelerator.register_for_checkpointing(pruner)``.
"""
