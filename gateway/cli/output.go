package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// toJSON is protojson as the contract has it: lowerCamelCase, 64-bit integers as strings, unset
// fields emitted. Its own white space is random on purpose, so it is taken out.
func toJSON(m proto.Message) ([]byte, error) {
	b, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("json: %w", err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		return nil, fmt.Errorf("json: %w", err)
	}
	return out.Bytes(), nil
}

// printOne writes a message; table is how people see it.
func (o *options) printOne(w io.Writer, m proto.Message, table func(io.Writer)) error {
	if o.table() {
		table(w)
		return nil
	}
	b, err := toJSON(m)
	if err != nil {
		return err
	}
	return o.write(w, b)
}

// printList writes messages as one list.
func printList[M proto.Message](o *options, w io.Writer, list []M, table func(io.Writer)) error {
	if o.table() {
		table(w)
		return nil
	}
	all := []byte{'['}
	for i, m := range list {
		b, err := toJSON(m)
		if err != nil {
			return err
		}
		if i > 0 {
			all = append(all, ',')
		}
		all = append(all, b...)
	}
	return o.write(w, append(all, ']'))
}

// printEvent writes one message of a watch on a line of its own.
func (o *options) printEvent(w io.Writer, m proto.Message, line string) error {
	if o.table() {
		if line != "" {
			text := append([]byte(line), '\n')
			if colourful(w) {
				text = paint(text)
			}
			_, err := w.Write(text)
			return err
		}
		return nil
	}
	b, err := toJSON(m)
	if err != nil {
		return err
	}
	if o.output == "yaml" {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return fmt.Errorf("yaml: %w", err)
		}
		_, err = fmt.Fprintf(w, "---\n%s", b)
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

func (o *options) table() bool { return o.output == "table" || o.output == "wide" }

func (o *options) write(w io.Writer, b []byte) error {
	if o.output == "yaml" {
		y, err := yaml.JSONToYAML(b)
		if err != nil {
			return fmt.Errorf("yaml: %w", err)
		}
		_, err = w.Write(y)
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return fmt.Errorf("json: %w", err)
	}
	out.WriteByte('\n')
	_, err := out.WriteTo(w)
	return err
}

// columns lines up tab-separated rows.
func columns(w io.Writer, rows func(w io.Writer)) {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	rows(t)
	_ = t.Flush() // into memory
	text := b.Bytes()
	if colourful(w) {
		text = paint(text)
	}
	_, _ = w.Write(text) // a terminal that is gone sees no error either
}
