"""The Docker engine by its API, behind the port `domain.containers.ContainerEngine`."""
