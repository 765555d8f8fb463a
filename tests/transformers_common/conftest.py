MARKERS_OF_THE_ARCHIVE = (
    "accelerate_tests",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "flash_attn_test",
    "is_agent_test",
    "is_expert_parallel_test",
    "is_fsdp_test",
    "is_pipeline_test",
    "is_staging_test",
    "is_tensor_parallel_test",
    "is_training_test",
    "order",
    "slow",
    "torch_compile_test",
)


def pytest_configure(config):
    for name in MARKERS_OF_THE_ARCHIVE:
        config.addinivalue_line("markers", f"{name}: one of transformers' own")
