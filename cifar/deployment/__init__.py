"""Changes what a running server serves, and proves it: `cifar deploy`, `rollback`, `undeploy`."""
