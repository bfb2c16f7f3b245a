// Package placement says which partition a device belongs to (placement.go), which node is to own each
// partition (assign.go), and how that is written down (table.go).
//
// It does not decide who owns a partition: the log does, and a Table is a hint of whom to ask and who
// should try. Nor does it know how nodes agree on one (cluster/group).
//
// PURE: standard library only, no I/O, no clock, no goroutines.
package placement

// Partition is the partition of a device among n: the default partitioner of Kafka's own clients
// (murmur2 of the key, sign bit cleared), so that any producer that keys by device id agrees.
func Partition(device []byte, n int32) int32 {
	return int32(murmur2(device)&0x7fffffff) % n
}

func murmur2(b []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(b))
	for len(b) >= 4 {
		k := uint32(b[3])<<24 | uint32(b[2])<<16 | uint32(b[1])<<8 | uint32(b[0])
		b = b[4:]
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
