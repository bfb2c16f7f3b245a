package remote

import (
	"sync"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// frame is an encoded ExchangeRequest.
type frame struct{ buf mem.Buffer }

// codec passes frames on as they are; anything else is protobuf as usual.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

// Marshal implements encoding.CodecV2. A frame's buffer goes to gRPC, which frees it.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return mem.BufferSlice{f.buf}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2. A frame's buffer is the receiver's, who frees it.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		f.buf = data.MaterializeToBuffer(mem.DefaultBufferPool())
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// chunkPool keeps the memory of sent batches for the next. It implements mem.BufferPool.
type chunkPool struct{ pool sync.Pool }

// Get implements mem.BufferPool.
func (p *chunkPool) Get(n int) *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok && cap(*b) >= n {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n)
	return &b
}

// Put implements mem.BufferPool.
func (p *chunkPool) Put(b *[]byte) {
	if cap(*b) <= 2*batchBytes { // one large message does not stay for ever
		p.pool.Put(b)
	}
}
