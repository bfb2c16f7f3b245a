package remote

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Field numbers of doppel.v1.ExchangeRequest and doppel.v1.Envelope, which this package encodes and
// decodes itself: a message is encoded once, into the batch it will travel in, and decoded once.
const (
	requestFrom      protowire.Number = 1
	requestEnvelopes protowire.Number = 2

	envelopeID      protowire.Number = 1
	envelopeTarget  protowire.Number = 2
	envelopeSender  protowire.Number = 3
	envelopeType    protowire.Number = 4
	envelopeMessage protowire.Number = 5
)

// envelope is a message on its way out: one to encode, or the encoding of one of a type.
type envelope struct {
	target, sender string
	message        proto.Message
	kind           string
	encoded        []byte
}

// check refuses what no receiver could read.
func (e *envelope) check() error {
	switch {
	case e.message == nil && e.kind == "":
		return ErrNotProto
	case !utf8.ValidString(e.target) || !utf8.ValidString(e.sender):
		return fmt.Errorf("name of the actor is not UTF-8: %q from %q", e.target, e.sender)
	}
	return nil
}

// sizes of an envelope with a given id.
type sizes struct{ message, envelope, total int }

func (e *envelope) sizes(id uint64) sizes {
	var s sizes
	if s.message = len(e.encoded); e.message != nil {
		s.message = proto.Size(e.message)
	}
	s.envelope = 1 + protowire.SizeVarint(id)
	for _, n := range [...]int{len(e.target), len(e.sender), len(e.typeName()), s.message} {
		s.envelope += 1 + protowire.SizeBytes(n) // 1: the tag of a field below 16
	}
	s.total = 1 + protowire.SizeBytes(s.envelope)
	return s
}

func (e *envelope) typeName() string {
	if e.message == nil {
		return e.kind
	}
	return string(e.message.ProtoReflect().Descriptor().FullName())
}

// appendTo appends the envelope as a field of an ExchangeRequest. After an error b is as it was
// within its length.
func (e *envelope) appendTo(b []byte, id uint64, s sizes) ([]byte, error) {
	b = protowire.AppendTag(b, requestEnvelopes, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(s.envelope))
	b = protowire.AppendTag(b, envelopeID, protowire.VarintType)
	b = protowire.AppendVarint(b, id)
	b = appendString(b, envelopeTarget, e.target)
	b = appendString(b, envelopeSender, e.sender)
	b = appendString(b, envelopeType, e.typeName())
	b = protowire.AppendTag(b, envelopeMessage, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(s.message))
	if e.message == nil {
		return append(b, e.encoded...), nil
	}
	start := len(b)
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, e.message)
	if err == nil && len(b)-start != s.message {
		err = fmt.Errorf("%s changed while it was encoded", e.typeName())
	}
	return b, err
}

func appendString(b []byte, n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

// received is an envelope as it came. Its slices share the memory of the batch.
type received struct {
	id                            uint64
	target, sender, kind, message []byte
}

// parseRequest calls fn for each envelope of an ExchangeRequest and returns who it is from, if it
// says so, and the number of envelopes.
func parseRequest(b []byte, fn func(*received)) (from string, n int, err error) {
	for len(b) > 0 {
		num, typ, k := protowire.ConsumeTag(b)
		if k < 0 {
			return "", n, protowire.ParseError(k)
		}
		b = b[k:]
		if typ != protowire.BytesType || num != requestFrom && num != requestEnvelopes {
			if k = protowire.ConsumeFieldValue(num, typ, b); k < 0 {
				return "", n, protowire.ParseError(k)
			}
			b = b[k:]
			continue
		}
		v, k := protowire.ConsumeBytes(b)
		if k < 0 {
			return "", n, protowire.ParseError(k)
		}
		b = b[k:]
		if num == requestFrom {
			from = string(v)
			continue
		}
		var e received
		if err := e.parse(v); err != nil {
			return "", n, err
		}
		n++
		fn(&e)
	}
	return from, n, nil
}

func (e *received) parse(b []byte) error {
	for len(b) > 0 {
		num, typ, k := protowire.ConsumeTag(b)
		if k < 0 {
			return protowire.ParseError(k)
		}
		b = b[k:]
		switch {
		case num == envelopeID && typ == protowire.VarintType:
			e.id, k = protowire.ConsumeVarint(b)
		case num >= envelopeTarget && num <= envelopeMessage && typ == protowire.BytesType:
			field := [...]*[]byte{&e.target, &e.sender, &e.kind, &e.message}[num-envelopeTarget]
			*field, k = protowire.ConsumeBytes(b)
		default:
			k = protowire.ConsumeFieldValue(num, typ, b)
		}
		if k < 0 {
			return protowire.ParseError(k)
		}
		b = b[k:]
	}
	return nil
}
