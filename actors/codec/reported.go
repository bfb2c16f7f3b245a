package codec

import "github.com/doppel-iot/doppel/actors/twin"

// Reported decodes a message of the reported topic, a JSON merge patch, and gives it compact and in
// canonical order.
func (d *Decoder) Reported(contentType string, payload []byte) ([]byte, *Refusal) {
	if r := checkSize(payload); r != nil {
		return nil, r
	}
	if contentType != "" {
		if f, _ := formatOf(contentType, payload); f != formatJSON {
			return nil, refuse(twin.ContentType, "content type %.100q: reported properties are application/json", contentType)
		}
	}
	d.patch.reset()
	s := &d.scan
	s.reset(payload)
	if s.peek() != '{' {
		return nil, d.jsonNoObject()
	}
	raw := s.skip()
	if r := s.close(); r != nil {
		return nil, r
	}
	patch, f := d.patch.fromJSON(raw)
	if f != nil {
		if f.path == "" {
			return nil, refuse(f.reason, "the patch: %s", f.text)
		}
		return nil, refuse(f.reason, "%s: %s", f.path[1:], f.text)
	}
	return patch, nil
}
