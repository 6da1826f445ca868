"""`cifar trace`: where what is served comes from; it reads and changes nothing."""
