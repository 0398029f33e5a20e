"""Pages and tables from what runs and studies leave behind."""
