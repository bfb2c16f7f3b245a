package api

import (
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Tokens are opaque to clients: base64url of a kind byte, the content, and a checksum that tells
// a mangled token from one that is merely too old.
const (
	tokenTwins   = 't'
	tokenAlerts  = 'a'
	tokenPage    = 'p'
	tokenLetters = 'l'
)

// maxToken is longer than any token of ours.
const maxToken = 16 << 10

func sealToken(kind byte, content []byte) string {
	b := make([]byte, 0, 1+len(content)+4)
	b = append(b, kind)
	b = append(b, content...)
	b = binary.LittleEndian.AppendUint32(b, uint32(xxhash.Sum64(b)))
	return base64.RawURLEncoding.EncodeToString(b)
}

// openToken returns the content of a token; field names it in the error.
func openToken(field string, kind byte, token string) ([]byte, error) {
	if len(token) > maxToken {
		return nil, invalid(field, "not a token of this service: too long")
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < 5 {
		return nil, invalid(field, "not a token of this service: not decodable")
	}
	content, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if sum != uint32(xxhash.Sum64(content)) {
		return nil, invalid(field, "not a token of this service: checksum does not match")
	}
	if content[0] != kind {
		return nil, invalid(field, "token of another kind of call")
	}
	return content[1:], nil
}

func twinsToken(incarnation, seq uint64) string {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 18), incarnation)
	return sealToken(tokenTwins, binary.AppendUvarint(b, seq))
}

func parseTwinsToken(token string) (incarnation, seq uint64, err error) {
	b, err := openToken("resume_token", tokenTwins, token)
	if err != nil {
		return 0, 0, err
	}
	r := tokenReader{b: b}
	incarnation, seq = r.fixed64(), r.uvarint()
	return incarnation, seq, r.end("resume_token")
}

func alertsToken(incarnation uint64, v vector) string {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 16+8*len(v)), incarnation)
	b = binary.AppendUvarint(b, uint64(len(v)))
	for _, p := range slices.Sorted(maps.Keys(v)) {
		at := v[p]
		b = binary.AppendUvarint(b, uint64(uint32(p)))
		b = binary.AppendUvarint(b, uint64(at.offset))
		b = binary.AppendUvarint(b, uint64(uint32(at.index)))
	}
	return sealToken(tokenAlerts, b)
}

func parseAlertsToken(token string) (incarnation uint64, v vector, err error) {
	b, err := openToken("resume_token", tokenAlerts, token)
	if err != nil {
		return 0, nil, err
	}
	r := tokenReader{b: b}
	incarnation = r.fixed64()
	v = vector{}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		p := int32(r.uvarint())
		v[p] = place{offset: int64(r.uvarint()), index: int32(r.uvarint())}
	}
	return incarnation, v, r.end("resume_token")
}

// tokenReader reads the content of a token; the first failure sticks.
type tokenReader struct {
	b   []byte
	bad bool
}

func (r *tokenReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *tokenReader) fixed64() uint64 {
	if len(r.b) < 8 {
		r.bad = true
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *tokenReader) bytes() []byte {
	n := r.uvarint()
	if uint64(len(r.b)) < n {
		r.bad = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// end fails if anything was missing or is left over.
func (r *tokenReader) end(field string) error {
	if r.bad || len(r.b) > 0 {
		return invalid(field, "not a token of this service: wrong content")
	}
	return nil
}
