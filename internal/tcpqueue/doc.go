// Package tcpqueue keeps the kernel's queues short for servers that have queues of
// their own. Without it, a slow reader has megabytes between the server's queue,
// where messages can expire or make room, and the network; and the server sees
// it take something only when a third of them has gone, which looks like a
// stall.
package tcpqueue
