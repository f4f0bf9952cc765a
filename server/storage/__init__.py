"""Where weights and packages lie: the BlobStore contract and its stores."""
