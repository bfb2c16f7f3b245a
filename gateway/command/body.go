package command

import (
	"bytes"
	"encoding/base64"
	"encoding/json"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// compact takes the white space out of JSON.
func compact(b []byte) []byte {
	var out bytes.Buffer
	if json.Compact(&out, b) != nil {
		return b
	}
	return out.Bytes()
}

// value is what a device said: JSON, or else its bytes in base64. Nothing stays nothing.
func value(b []byte) *structpb.Value {
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	v := &structpb.Value{}
	if protojson.Unmarshal(b, v) == nil {
		return v
	}
	return structpb.NewStringValue(base64.StdEncoding.EncodeToString(b))
}
