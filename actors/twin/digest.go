package twin

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"
)

// appendContent appends what is hashed of a sample (contract section 6), with 0 for the digest in
// front.
func appendContent(b []byte, sm *Sample) []byte {
	le := binary.LittleEndian
	boot, seq := sm.Boot, sm.Seq
	if !sm.Numbered {
		boot, seq = 0, 0
	}
	b = le.AppendUint64(b, 0)
	b = le.AppendUint64(b, boot)
	b = le.AppendUint64(b, seq)
	b = le.AppendUint64(b, uint64(sm.Time))
	for i := range sm.Readings {
		b = append(b, sm.Readings[i].Name...)
		b = append(b, 0)
		b = le.AppendUint64(b, math.Float64bits(sm.Readings[i].Value))
	}
	return b
}

// chain continues a digest over content, which appendContent made.
func chain(digest uint64, content []byte) uint64 {
	binary.LittleEndian.PutUint64(content, digest)
	return xxhash.Sum64(content)
}
