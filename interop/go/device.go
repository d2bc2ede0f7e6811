package socp

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
)

// Device is what a device keeps beside its key: an id of its own, and how far it has read the inbox and the
// public channel.
type Device struct {
	ID            string `json:"device_id"`
	Cursor        string `json:"cursor"`
	ChannelCursor string `json:"channel_cursor"`
	file          string
}

// LoadDevice reads what was kept in a file, or makes it. Without a file all is forgotten with the program.
func LoadDevice(file string) (*Device, error) {
	d := &Device{ID: hex.EncodeToString(random(16)), file: file}
	if file == "" {
		return d, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return d, d.keep(&d.Cursor, "")
	} else if err != nil {
		return nil, err
	}
	return d, json.Unmarshal(text, d)
}

// keep notes one of the two cursors, of the last thing that was dealt with. A crash right before shows that once more;
// nothing is missed.
func (d *Device) keep(which *string, cursor string) error {
	*which = cursor
	if d.file == "" {
		return nil
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	temporary := d.file + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, d.file)
}
