package api

import (
	"encoding/base64"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Tokens are opaque to clients: base64url of a kind byte, the content, and a checksum that tells
// a mangled token from one that is merely too old.
const (
	tokenTwins   = 't'
	tokenAlerts  = 'a'
	tokenPage    = 'p'
	tokenLetters = 'l'
	tokenHistory = 'h'
)

// maxToken is longer than any token of ours: of alerts it has some bytes for each partition.
const maxToken = 64 << 10

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

// twinsPlace is what a token of WatchTwins says.
type twinsPlace struct {
	incarnation, seq uint64
	partial          bool // in the middle of a snapshot
}

func (t twinsPlace) token() string {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 20), t.incarnation)
	b = binary.AppendUvarint(b, t.seq)
	return sealToken(tokenTwins, appendBool(b, t.partial))
}

func parseTwinsToken(token string) (t twinsPlace, err error) {
	b, err := openToken("resume_token", tokenTwins, token)
	if err != nil {
		return t, err
	}
	r := tokenReader{b: b}
	t.incarnation, t.seq, t.partial = r.fixed64(), r.uvarint(), r.bool()
	return t, r.end("resume_token")
}

// alertsPlace is what a token of WatchAlerts says: it means the same on every node.
type alertsPlace struct {
	log     uint64 // names the log of alerts
	seen    vector
	partial bool // in the middle of a snapshot
}

func (t alertsPlace) token() string {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 24+9*len(t.seen)), t.log)
	b = appendBool(b, t.partial)
	b = binary.AppendUvarint(b, uint64(len(t.seen)))
	for _, m := range t.seen {
		b = binary.AppendUvarint(b, uint64(m.next))
		b = binary.AppendUvarint(b, uint64(m.at.offset+1))
		b = binary.AppendUvarint(b, uint64(uint32(m.at.index)))
	}
	return sealToken(tokenAlerts, b)
}

func parseAlertsToken(token string) (t alertsPlace, err error) {
	b, err := openToken("resume_token", tokenAlerts, token)
	if err != nil {
		return t, err
	}
	r := tokenReader{b: b}
	t.log, t.partial = r.fixed64(), r.bool()
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		m := mark{next: int64(r.uvarint()), at: place{offset: int64(r.uvarint()) - 1, index: int32(r.uvarint())}}
		if m.next < 0 || m.at.before(nowhere) {
			r.bad = true
		}
		t.seen = append(t.seen, m)
	}
	return t, r.end("resume_token")
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
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

func (r *tokenReader) bool() bool {
	v := r.uvarint()
	r.bad = r.bad || v > 1
	return v == 1
}

// end fails if anything was missing or is left over.
func (r *tokenReader) end(field string) error {
	if r.bad || len(r.b) > 0 {
		return invalid(field, "not a token of this service: wrong content")
	}
	return nil
}
