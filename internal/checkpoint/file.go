package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/frazil-io/frazil/internal/batch"
)

// A file is one line that says what it is, then JSON:
//
//	frazil <kind> v1 sha256:<hex of the JSON's SHA-256>
//	{…}
//
// The checksum tells a file that was half written, or changed by hand, from one
// that says something unexpected.

const fileVersion = "v1"

// encode returns the file's bytes. Equal values have equal bytes.
func encode(kind string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	sum := sha256.Sum256(body)
	return fmt.Appendf(nil, "frazil %s %s sha256:%s\n%s\n", kind, fileVersion, hex.EncodeToString(sum[:]), body), nil
}

// decode reads a file of this kind into v. batch.ErrInvalid: a newer frazil
// wrote it. batch.ErrDataLost: it is damaged.
func decode(kind, key string, data []byte, v any) error {
	head, body, ok := bytes.Cut(data, []byte("\n"))
	fields := strings.Fields(string(head))
	if !ok || len(fields) != 4 || fields[0] != "frazil" || fields[1] != kind {
		return damaged(key, "it does not begin with the line of a "+kind)
	}
	if fields[2] != fileVersion {
		return fmt.Errorf("%w: %s has format %q, this frazil reads %q: run the version that wrote it, or a newer one", batch.ErrInvalid, key, fields[2], fileVersion)
	}
	body, ok = bytes.CutSuffix(body, []byte("\n"))
	sum := sha256.Sum256(body)
	if !ok || fields[3] != "sha256:"+hex.EncodeToString(sum[:]) {
		return damaged(key, "its checksum does not match")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return damaged(key, err.Error())
	}
	return nil
}

func damaged(key, why string) error {
	return fmt.Errorf("%w: the checkpoint's file %s is damaged (%s): restore it from a backup, or move the checkpoint away and "+
		"let frazil recover from the tables", batch.ErrDataLost, key, why)
}
