// Package fault pulls plugs. It runs the product and the servers around it as real processes, loads them
// with a fleet that repeats and swaps messages, and meanwhile kills, pauses and stops them and cuts the
// links between them, by a schedule that follows from a seed. When everything has come to rest it judges:
// nothing acknowledged lost, nothing twice, the state that of an uninterrupted fold of the log, alerts and
// rows complete, accounts balanced.
//
// A cluster's nodes live in network namespaces joined by a switch in this process, so that every pair of
// parties has a link of its own that can be cut, lossy or slow in either direction; where namespaces cannot
// be had, proxies take their place. Of a cluster it also judges that every node answers for all of it, that
// subscribers who go on at another node hear each transition once and in order, and tells how long devices
// waited for each kind of fault.
//
// It does not judge speed, and it does not reproduce timing: the same seed gives the same schedule and the
// same devices, not the same interleaving. A round belongs to one goroutine; what it starts, processes
// and namespaces included, ends with it.
package fault
